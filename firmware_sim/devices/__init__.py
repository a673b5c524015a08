"""Simulated devices: what every firmware has, its resend buffer above all, and in carriers/ one file a protocol."""
