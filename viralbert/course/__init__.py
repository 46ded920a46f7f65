"""The course itself: notebooks run, report built, hub files fetched beforehand."""
