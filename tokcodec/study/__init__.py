"""`tokcodec study`: people choose between two codecs at one rate, and the votes become Elo points.

plan.py      what is shown: clips, pairs, and the file study.json
make.py      a study from folders of decoded clips
rerun.py     a study from a results folder of the bench: the clips are coded and decoded again
votes.py     votes in SQLite
server.py    the page on this machine, from assets/
score.py     Bradley-Terry strengths in Elo points, with bootstrap intervals
"""
