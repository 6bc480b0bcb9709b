"""JSON files of somebody else: what is read, and what an edit leaves as it was."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.config.json_text import BadJson, parse, put, renamed, without, written


class ParseTests(SynchronousTestCase):
    def test_byte_order_mark(self) -> None:
        self.assertEqual(parse(b'\xef\xbb\xbf{"a": 1}'), ('{"a": 1}', {"a": 1}))

    def test_refused(self) -> None:
        for octets, text in (
            (b'{"a": 1', "line 1 column 8: Expecting ',' delimiter"),
            (b"", "line 1 column 1: Expecting value"),
            (b"[1]", "a value that is no object"),
            (b'{"a": 1, "a": 2}', 'the member "a" twice in one object'),
            (b'{"a": NaN}', "NaN, which is no JSON"),
            (b'{\n"a": "\xff"}', "octet 0xff in line 2, no UTF-8"),
            (b'{"a":' * 100_000, None),
            (b'{"a": ' + b"9" * 5000 + b"}", None),
        ):
            error = self.assertRaises(BadJson, parse, octets)
            if text is not None:
                self.assertEqual(str(error), text)


class EditTests(SynchronousTestCase):
    def test_replaced_in_its_place(self) -> None:
        """With odd spaces, numbers and escapes around it untouched."""
        text = '{ "a" :1.0e2 ,\n\t"b": "\\u00e9",  "c":[ 1,2 ] }\n'
        self.assertEqual(put(text, ["b"], "x"), '{ "a" :1.0e2 ,\n\t"b": "x",  "c":[ 1,2 ] }\n')

    def test_added_behind_the_last(self) -> None:
        """In the file's own indentation and line ends."""
        for before, after in (
            ('{\n  "a": 1\n}', '{\n  "a": 1,\n  "b": 2\n}'),
            ('{\r\n\t"a": 1\r\n}\r\n', '{\r\n\t"a": 1,\r\n\t"b": 2\r\n}\r\n'),
            ('{"a":1}', '{"a":1, "b": 2}'),
            ("{}", '{\n  "b": 2\n}'),
            (" {\n} \n", ' {\n  "b": 2\n} \n'),
        ):
            self.assertEqual(put(before, ["b"], 2), after)

    def test_nested(self) -> None:
        text = '{\n  "r": {\n    "x": 1\n  }\n}'
        self.assertEqual(
            put(text, ["r", "y"], True), '{\n  "r": {\n    "x": 1,\n    "y": true\n  }\n}'
        )
        self.assertEqual(
            put(text, ["s", "y"], {"z": []}),
            '{\n  "r": {\n    "x": 1\n  },\n  "s": {\n    "y": {\n      "z": []\n    }\n  }\n}',
        )
        self.assertEqual(put('{"r": {}}', ["r", "y"], 1), '{"r": {"y": 1}}')
        self.assertEqual(put('{"r": 5}', ["r", "y"], 1), '{"r": {"y": 1}}')

    def test_braces_in_text(self) -> None:
        text = '{"a": "}, \\"b\\": {", "b": 1}'
        self.assertEqual(put(text, ["b"], 2), '{"a": "}, \\"b\\": {", "b": 2}')

    def test_taken_away(self) -> None:
        text = '{\n  "a": 1,\n  "b": {"x": [1]},\n  "c": 3\n}'
        self.assertEqual(without(text, "a"), '{\n  "b": {"x": [1]},\n  "c": 3\n}')
        self.assertEqual(without(text, "b"), '{\n  "a": 1,\n  "c": 3\n}')
        self.assertEqual(without(text, "c"), '{\n  "a": 1,\n  "b": {"x": [1]}\n}')
        self.assertEqual(without(text, "d"), text)
        self.assertEqual(without('{ "a": 1 }', "a"), "{}")

    def test_renamed(self) -> None:
        self.assertEqual(renamed('{"a":1, "b" : 2}', "b", "c"), '{"a":1, "c" : 2}')

    def test_new(self) -> None:
        self.assertEqual(written({"a": [], "b": "ä"}), '{\n  "a": [],\n  "b": "ä"\n}')
