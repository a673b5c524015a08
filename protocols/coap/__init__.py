"""The Constrained Application Protocol, RFC 7252."""
