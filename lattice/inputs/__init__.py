"""What the doors are given -> frozen Problems that the stages can trust: every check, and the text of every error."""
