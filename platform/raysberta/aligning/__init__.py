"""Room `aligning`: an encoder learns to speak to a frozen decoder."""
