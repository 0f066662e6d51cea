"""This machine as a captioning endpoint: a guard, a bounded queue, and two forms of asking."""
