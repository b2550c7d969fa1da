import unittest

from timesheet import format_duration, parse_duration, totals


class ParseDuration(unittest.TestCase):
    def test_hours_alone(self):
        self.assertEqual(parse_duration("2h"), 120)

    def test_hours_and_minutes(self):
        self.assertEqual(parse_duration("1h30m"), 90)

    def test_minutes_alone(self):
        self.assertEqual(parse_duration("45m"), 45)

    def test_anything_else_is_refused(self):
        for text in ["", "h", "30", "1.5h", "m"]:
            with self.subTest(text=text), self.assertRaises(ValueError):
                parse_duration(text)


class FormatDuration(unittest.TestCase):
    def test_both_parts_are_shown(self):
        self.assertEqual(format_duration(125), "2h05m")


class Totals(unittest.TestCase):
    def test_durations_of_a_project_add_up(self):
        lines = ["2025-03-03 1h30m website\n", "2025-03-03 2h support\n", "\n", "2025-03-04 1h website\n"]
        self.assertEqual(totals(lines), {"website": 150, "support": 120})


if __name__ == "__main__":
    unittest.main()
