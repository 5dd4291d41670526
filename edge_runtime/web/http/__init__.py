"""What a request meets before it is answered: limits, security, sign-in, problems."""
