"""What `make run` runs: cloud, gateway and twenty simulated devices on this machine, each a process of its own, started
as a user would start them."""
