"""What a benchmark tells: records, statistics, tables, plots, sheets."""
