"""The MLM and contrastive loops."""
