"""How an error is said in the APIs of other programs. Knows problem documents, and no route."""
