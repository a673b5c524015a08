"""The CoAP listener. What is imported from here without a CoAP section in the configuration is config.py alone."""
