"""Text: cleaning answers, facts that captions name, T5 token counts."""
