"""Process reward models: prompt, tokens, heads, aggregation."""
