"""What arrives: a model. What leaves: a smaller one that does nearly the same, and how nearly."""
