"""User accounts: sign-up, sign-in, passwords."""
