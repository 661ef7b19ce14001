"""To be imported first, by the module of an actor of which there is one only: others wait while it loads the rest.

Importing it has the process go ahead, if Ray started it: loading takes longer than all that the actor does to begin.
"""

from noodle_ray.precedence import go_ahead

go_ahead()
