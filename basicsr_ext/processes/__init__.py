"""Who the processes of a run are; how they wait, add up and end together."""
