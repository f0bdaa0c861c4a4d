"""`tokcodec bench`: tokcodec beside HEVC, AV1, VVC and AVC, on named datasets, resumable.

datasets.py   which clips, where they are, and what is wrong with a file
clips.py      a clip's frames at the size that is measured, as a lossless file
codecs/       one small file for each codec
rates.py      which quantizers are measured, so that a codec spans the rates
ffmpeg.py     an FFmpeg program that has what is needed
process.py    a program in its own process: wall clock and peak memory
child.py      what runs in such a process for the codecs of PyAV
tasks.py      one encode, one decode with its metrics: what a worker does
vmaf.py       VMAF by an FFmpeg that has libvmaf
engine.py     where tasks run: processes of this machine, or Ray
plan.py       what shall be measured, and what became of it
runner.py     everything that is missing, and nothing twice
tracks.py     one curve of one clip: its encodes, its measurements
examples.py   frames to look at, all codecs at one rate
record.py     one clip, one codec, one rate: a line of JSON
store.py      the files of a results folder
machine.py    what the figures were measured on
curves.py     curves of a clip, and their mean
bdrate.py     Bjontegaard's delta rate
summary.py    what is said at the end
report/       the page and the figures
"""
