"""Does learning the weights help, against what, and when: methods x troubles x seeds on the embedded world."""
