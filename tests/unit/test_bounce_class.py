"""Failures are sorted by what servers really say, and by rules of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from protege_mta.config.bounce_rules import classifier, shipped
from protege_mta.model.bounce_class import (
    LINE_CHARACTERS,
    BadRules,
    Classifier,
    line_of,
    parse,
)
from protege_mta.model.reply import TABLE, Reply

SAID: Final = (
    (550,"5.1.1","The email account that you tried to reach does not exist. Please try double-checking the recipient's email address for typos or unnecessary spaces. NoSuchUser","InvalidRecipient"),
    (550,"5.1.10","RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup","InvalidRecipient"),
    (550,"5.4.1","Recipient address rejected: Access denied. AS(201806281)","InvalidRecipient"),
    (554,"","delivery error: dd This user doesn't have a yahoo.com account (x@yahoo.com) [0]","InvalidRecipient"),
    (550,"5.1.1","<x@y.test>: Recipient address rejected: User unknown in virtual mailbox table","InvalidRecipient"),
    (550,"5.5.0","Requested action not taken: mailbox unavailable (S2017062302).","InvalidRecipient"),
    (550,"5.2.1","The email account that you tried to reach is disabled.","InactiveMailbox"),
    (452,"4.2.2","The email account that you tried to reach is over quota.","QuotaIssues"),
    (552,"5.2.2","The recipient's inbox is out of storage space","QuotaIssues"),
    (550,"5.7.26","Unauthenticated email from x.test is not accepted due to domain's DMARC policy.","AuthenticationFailed"),
    (550,"5.7.26","This mail has been blocked because the sender is unauthenticated. Gmail requires all senders to authenticate with either SPF or DKIM.","AuthenticationFailed"),
    (550,"5.7.1","[192.0.2.1] Gmail has detected that this message is likely unsolicited mail. To reduce the amount of spam","SpamContent"),
    (421,"4.7.28","Gmail has detected an unusual rate of unsolicited mail originating from your IP address.","SpamBlock"),
    (552,"5.7.0","This message was blocked because its content presents a potential security issue.","ProhibitedAttachment"),
    (550,"5.7.1","Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your Internet service provider since part of their network is on our block list (S3140).","SpamBlock"),
    (550,"5.7.606","Access denied, banned sending IP [192.0.2.1].","SpamBlock"),
    (421,"4.7.0","[TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints","SpamBlock"),
    (553,"5.7.1","[BL21] Connections will not be accepted from 192.0.2.1, because the ip is in Spamhaus's list","SpamBlock"),
    (554,"5.7.1","Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org","SpamBlock"),
    (554,"5.7.1","<x@y.test>: Relay access denied","RelayDenied"),
    (450,"4.2.0","<x@y.test>: Recipient address rejected: Greylisted","TransientFailure"),
    (450,"4.7.1","Client host rejected: cannot find your hostname, [192.0.2.1]","BadConfiguration"),
    (550,"5.1.2","no such domain","BadDomain"),
    (556,"5.1.10","the domain accepts no mail (null MX)","BadDomain"),
    (554,"5.4.7","too old to be tried again; last failure: 450 4.1.1 user unknown","MessageExpired"),
    (451,"4.4.1","no host could be reached","NoAnswerFromHost"),
    (550,"5.7.1","relaying denied","RelayDenied"),
    (550,"","Administrative prohibition","Uncategorized"),
    (550,"5.7.1","not allowed","PolicyRelated"),
    (421,"","Too many connections, try later","TransientFailure"),
    (554,"5.7.1","[CS01] Message rejected due to local policy.","SpamContent"),
    (552,"5.3.4","Message too big","QuotaIssues"),
    (550,"","5.1.1 x user unknown","InvalidRecipient"),
    (451,"4.1.8","Domain of sender address x@y does not resolve","InvalidSender"),
)  # fmt: skip
"""Code, enhanced code and text, and the class."""


class ShippedRulesTests(SynchronousTestCase):
    """What large providers and common servers say."""

    def test_known_replies(self) -> None:
        classify = classifier([])
        for code, enhanced, text, wanted in SAID:
            self.assertEqual(classify(Reply(code, enhanced, (text,))).name, wanted, text)

    def test_only_what_is_wrong_with_a_recipient_suppresses_it(self) -> None:
        for rules in shipped():
            for known in rules.classes.values():
                if known.action == "suppress":
                    self.assertEqual(known.scope, "recipient")

    def test_every_class_of_a_rule_says_what_to_do(self) -> None:
        files = shipped()
        known = {name for rules in files for name in rules.classes}
        named = {name for rules in files for _, name in rules.expressions}
        self.assertEqual(named, known)
        for rules in files:
            for one in rules.classes.values():
                self.assertTrue(one.remedy.endswith("."), one.name)

    def test_our_own_replies_suppress_nobody_for_our_trouble(self) -> None:
        classify = classifier([])
        suppressing = {
            name for name, reply in TABLE.items() if classify(reply).action == "suppress"
        }
        self.assertEqual(
            {name for name in suppressing if TABLE[name].code >= 500},
            {"bad-recipient", "no-such-user", "no-such-domain", "null-mx", "webhook-gone"},
        )

    def test_who_may_come_back_is_not_suppressed(self) -> None:
        """A transient reply about an unknown mailbox (RFC 3463, 4.1.1) may be its server's fault."""
        found = classifier([])(Reply(450, "4.1.1", ("user unknown",)))
        self.assertEqual((found.name, found.action), ("InvalidRecipient", "retry"))

    def test_the_names_in_a_reply_do_not_matter(self) -> None:
        classify = classifier([])
        one = classify(Reply(550, "5.1.1", ("<a@x.test> unknown user 1a2b3c4d5e",)))
        other = classify(Reply(550, "5.1.1", ("<b@x.test> unknown user ffaa3c4d5e",)))
        self.assertIs(one, other)


class OwnRulesTests(SynchronousTestCase):
    """Files of the operator's, in KumoMTA's form."""

    def write(self, text: str) -> Path:
        path = Path(self.mktemp())
        path.write_text(text, "utf-8")
        return path

    def test_they_go_first(self) -> None:
        path = self.write("[rules]\nSpamBlock = ['^550 5\\.1\\.1 .*go away']\n")
        found = classifier([path])(Reply(550, "5.1.1", ("go away",)))
        self.assertEqual((found.name, found.action), ("SpamBlock", "back_off"))

    def test_a_class_of_ones_own(self) -> None:
        """Its name is told; without a word about it nothing is done."""
        path = self.write("[rules]\nFriday = ['(?i)friday']\n")
        found = classifier([path])(Reply(550, "", ("not on a Friday",)))
        self.assertEqual((found.name, found.scope, found.action), ("Friday", "message", "none"))

    def test_another_meaning_of_a_class(self) -> None:
        path = self.write(
            "[classes.QuotaIssues]\nscope = 'recipient'\naction = 'suppress'\nremedy = 'Full.'\n"
        )
        found = classifier([path])(Reply(552, "5.2.2", ("mailbox full",)))
        self.assertEqual((found.action, found.remedy), ("suppress", "Full."))

    def test_what_cannot_be_used(self) -> None:
        for text, complaint in (
            ("[rules", "is not TOML"),
            ("rules = 1", "wanted tables"),
            ("[rules]\nA = [1]", "wanted an array"),
            ("[rules]\nA = ['(']", "is no regular expression"),
            ("[rules]\nA = ['(a+)+$']", "repeats what repeats"),
            ("[rules]\nA = ['(x|[a-z]*y)*']", "repeats what repeats"),
            ("[classes]\nA = 1", "wanted a table"),
            ("[classes.A]\nscope = 'all'", "scope is one of"),
            ("[classes.A]\naction = 'run'", "action is one of"),
            ("[classes.A]\naction = 'suppress'", "only what is wrong with a recipient"),
            ("[classes.A]\nremedy = 1", "remedy is a text"),
        ):
            with self.assertRaises(BadRules) as caught:
                parse(text.encode())
            self.assertIn(complaint, str(caught.exception))
        self.assertRaises(BadRules, parse, b"\xff")

    def test_a_long_reply_is_cut(self) -> None:
        reply = Reply(550, "5.7.1", ("x" * 400,) * 5_000)
        self.assertEqual(len(line_of(reply)), LINE_CHARACTERS)

    def test_what_is_remembered_is_bounded(self) -> None:
        classify = Classifier([parse(b"[rules]")])
        for number in range(3000):
            classify(Reply(550, "5.0.0", ("a " * (number % 200) + str(number),)))
        self.assertLess(len(classify._known), 1025)
