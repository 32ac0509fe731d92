"""E-mail to people: invitations, links for a new password, notices of what has changed."""
