"""One loop for teachers and students, and what stands around it."""
