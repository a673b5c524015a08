"""The link: one outbound WebSocket between a gateway and the cloud, blocks upwards, registry and commands downwards."""
