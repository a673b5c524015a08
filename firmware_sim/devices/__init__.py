"""Simulated devices: one file a protocol, and what every firmware has, its resend buffer above all."""
