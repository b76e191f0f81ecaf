"""From anybody's videos, or the published dataset, to a training set: `videobooth prepare`."""
