"""newdreamflow: a site whose users draw with the GPU server. `dreams` is the app; the others surround it."""
