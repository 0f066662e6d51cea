"""Engine remote: another machine, over HTTP."""
