"""English words that occur everywhere and say little."""

_WORDS = """
a about after all also an and any are as at be because been before but by can could did do does for from had has
have he her here him his how i if in into is it it's its just me more most my no nor not now of on only or other
our out over own she should so some such than that the their them then there these they this those through to too
under until up very was we were what when where which while who whom why will with would you your
"""
STOP_WORDS = frozenset(_WORDS.split())
