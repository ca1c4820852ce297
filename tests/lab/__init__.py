"""The lab, from outside: what a person or a script gets, and what is left when they leave."""
