"""What can be trusted: what was measured from the audio, what captions claim, and whether they agree."""
