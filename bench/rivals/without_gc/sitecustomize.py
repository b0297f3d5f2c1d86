"""Python runs this at its start: no garbage collector, whatever the program is."""

import gc

gc.disable()
