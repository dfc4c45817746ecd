"""What a benchmark tells: records, statistics, tables, sheets."""
