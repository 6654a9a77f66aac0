"""Engine process: its end of the link, engine worker, picture files, fake engine. Only this folder imports torch."""
