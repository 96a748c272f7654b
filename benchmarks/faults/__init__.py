"""Wrong inputs, damaged files and kills: what a user meets, and that nothing of it passes in silence."""
