"""What takes bytes from devices, apart from any socket: one file a family, each with its targets."""
