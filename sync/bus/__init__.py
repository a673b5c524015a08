"""Topics and channels: one contract (contract.py), a transport for the edge and one for the cloud."""
