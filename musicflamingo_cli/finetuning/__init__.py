"""Fine-tuning: an adapter is trained on captions that a person approved (extra `finetune`)."""
