"""From scores to statistics, a verdict, tables, figures and a report."""
