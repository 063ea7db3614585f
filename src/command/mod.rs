//! What is not `run`: each command's work, called by `main`.
