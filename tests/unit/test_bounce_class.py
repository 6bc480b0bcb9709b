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
    (550,"5.4.1","Recipient address rejected: Access denied. AS(201806281)","AmbiguousRefusal"),
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


NOT_ABOUT_A_MAILBOX: Final = (
    (550,"5.7.1","Service unavailable; client [192.0.2.1] blocked using Spamhaus"),
    (550,"5.7.1","Email rejected per policy. User unknown or sender blocked"),
    (554,"5.7.1","<x@y.test>: Recipient address rejected: Access denied"),
    (550,"5.4.1","Recipient address rejected: Access denied. AS(201806281) [DB5EUR03FT012.eop-EUR03.prod.protection.outlook.com]"),
    (550,"5.4.1","All recipient addresses rejected : Access denied"),
    (550,"5.4.4","Host not found"),
    (550,"5.4.310","DNS domain x.test does not exist [Message=InfoDomainNonexistent]"),
    (554,"5.4.14","Hop count exceeded - possible mail loop ATTR34"),
    (552,"5.2.2","The email account that you tried to reach is over quota."),
    (550,"5.2.2","mailbox full, account inactive until emptied"),
    (554,"5.2.2","mailbox full; user unknown to quota daemon"),
    (550,"5.2.3","Message size exceeds fixed maximum message size"),
    (450,"4.7.1","<x@y.test>: Recipient address rejected: Greylisted, see http://postgrey"),
    (550,"5.1.1","<x@y.test>: Recipient address rejected: Greylisted, user unknown for now"),
    (550,"5.1.1","Mail from 192.0.2.1 refused, see http://www.example/bl"),
    (550,"5.1.1","mail from your IP 192.0.2.1 was rejected due to reputation"),
    (550,"5.1.1","Mail rejected. IP 192.0.2.1 is blocked. Unknown user or policy"),
    (550,"5.1.1","Your server is listed at bl.example.net; recipient unknown"),
    (550,"5.1.1","sender IP must resolve; recipient rejected"),
    (550,"5.1.1","This system is configured to reject mail from 192.0.2.1"),
    (550,"5.1.1","Access denied, your host is not allowed to send to this user"),
    (550,"5.1.1","No such user - pod; too many invalid recipients, slow down"),
    (550,"5.1.1","Connection refused: too many connections from your host"),
    (550,"5.1.1","<x@y.test>: Sender address rejected: not owned by user"),
    (550,"5.1.1","spam detected; address rejected"),
    (550,"5.1.1","Rejected by policy: bad reputation of sending host"),
    (550,"5.1.1","Not accepting mail from 192.0.2.1 (dynamic IP)"),
    (550,"5.1.1","mail from dynamic IP addresses is not accepted; use your ISP's smarthost"),
    (550,"","Mailbox unavailable, message refused: the IP has been blocked"),
    (550,"","Requested action not taken: mailbox unavailable. For explanation visit http://postmaster.gmx.net/en/error-messages?ip=192.0.2.1&c=bip"),
    (550,"","Requested mail action not taken: mailbox unavailable; Reject due to policy restrictions."),
    (554,"","Transaction failed. Reject due to policy restrictions. IP address blacklisted"),
    (550,"5.7.1","Recipient address rejected: user unknown; blocked"),
    (550,"5.7.0","Local Policy Violation - user unknown in relay table"),
    (550,"5.7.509","Access denied, sending domain x.test does not pass DMARC verification"),
    (550,"5.7.705","Access denied, tenant has exceeded threshold"),
    (550,"5.1.8","Access denied, bad outbound sender AS(42003)"),
    (550,"5.1.7","invalid address: sender"),
    (550,"5.1.1","Sender verify failed: no such user sender@ours.test"),
    (550,"5.1.0","<me@ours.test> sender rejected"),
    (550,"5.1.0","Address rejected: sender domain has bad reputation"),
    (550,"5.1.2","Sender domain does not exist"),
    (550,"5.1.2","Bad destination mailbox address: relay not permitted"),
    (553,"5.1.3","sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"),
    (550,"5.1.1","User rate limited: too many messages to this user"),
    (550,"5.2.1","The user you are trying to contact is receiving mail at a rate that prevents additional messages from being delivered."),
    (450,"4.2.1","The user you are trying to contact is receiving mail too quickly"),
    (550,"5.2.1","Mailbox disabled, IP 192.0.2.1 is blocked"),
    (550,"5.1.1","Recipient refused: SPF check failed"),
    (550,"5.1.1","Recipient rejected: reverse DNS missing"),
    (550,"5.1.1","TLS required for this recipient"),
    (550,"5.1.1","Verification of your HELO name failed"),
    (550,"5.1.6","recipient no longer on server: 192.0.2.1 blacklisted"),
    (550,"5.1.1","Temporary lookup failure, user unknown"),
    (550,"5.1.1","LDAP server unavailable: recipient could not be verified"),
    (550,"5.1.1","message content rejected for this recipient"),
    (550,"5.1.1","virus found, not delivered to user"),
    (550,"5.1.1","Mail server is under attack; 192.0.2.1 banned"),
    (550,"5.1.1","<x@y.test> blocked by customer's block list"),
    (550,"","Requested action not taken: mailbox unavailable invalid DNS MX or A/AAAA resource record"),
    (550,"5.1.0","Address rejected; FCrDNS missing"),
    (550,"","Administrative prohibition: no such user"),
    (550,"5.2.1","mailbox disabled, not accepting messages from you"),
    (550,"5.1.1","local configuration error"),
)  # fmt: skip
"""Refusals of who sends, of a message, or for now, whatever code and words stand before them."""

ABOUT_A_MAILBOX: Final = (
    (554,"5.1.1","transaction failed"),
    (550,"5.3.0","<x@y.test>... User unknown"),
    (550,"5.1.1","<x@y.test>: Recipient address rejected: User unknown in virtual mailbox table"),
    (550,"5.1.1","The email account that you tried to reach does not exist. Please try double-checking"),
    (550,"5.1.10","RESOLVER.ADR.RecipientNotFound; Recipient x@y.test not found by SMTP address lookup"),
    (550,"5.5.0","Requested action not taken: mailbox unavailable (S2017062302)."),
    (554,"","delivery error: dd This user doesn't have a yahoo.com account (x@yahoo.com) [0]"),
    (550,"","No such user here"),
    (550,"","5.1.1 x user unknown"),
    (551,"","User not local; please try elsewhere user unknown"),
    (550,"5.2.1","The email account that you tried to reach is disabled."),
    (550,"5.1.2","no such domain"),
    (550,"5.1.1","<spamhaus@y.test>: user unknown"),
    (550,"5.1.1","<blacklisted.rbl@y.test>: Recipient address rejected: User unknown"),
    (550,"5.1.1","no"),
    (550,"5.1.1","Mailbox does not exist!"),
    (550,"5.1.1","recipient rejected"),
    (550,"5.1.6","Recipient no longer on server"),
    (550,"5.0.0","User unknown"),
    (553,"5.1.3","Invalid address"),
)  # fmt: skip


class ShippedRulesTests(SynchronousTestCase):
    """What large providers and common servers say."""

    def test_known_replies(self) -> None:
        classify = classifier([])
        for code, enhanced, text, wanted in SAID:
            self.assertEqual(classify(Reply(code, enhanced, (text,))).name, wanted, text)

    def test_what_may_be_about_us_suppresses_nobody(self) -> None:
        classify = classifier([])
        for code, enhanced, text in NOT_ABOUT_A_MAILBOX:
            found = classify(Reply(code, enhanced, (text,)))
            self.assertNotEqual(found.action, "suppress", text)

    def test_no_hard_bounce_is_forgotten(self) -> None:
        classify = classifier([])
        for code, enhanced, text in ABOUT_A_MAILBOX:
            found = classify(Reply(code, enhanced, (text,)))
            self.assertEqual(found.action, "suppress", text)

    def test_a_mailbox_may_be_called_as_it_likes(self) -> None:
        """And what was said of another before is no matter."""
        for names in (("spamhaus", "bob"), ("bob", "spamhaus")):
            classify = classifier([])
            for name in names:
                found = classify(Reply(550, "5.1.1", (f"<{name}@x.test>: user unknown",)))
                self.assertEqual(found.name, "InvalidRecipient")

    def test_a_doubt(self) -> None:
        found = classifier([])(Reply(550, "5.1.1", ("user unknown, or you come too often",)))
        self.assertEqual((found.name, found.action), ("AmbiguousRefusal", "none"))

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

    def test_whoever_writes_a_rule_has_no_doubts(self) -> None:
        path = self.write("[rules]\nInvalidRecipient = ['^550 5\\.4\\.1 .*access denied']\n")
        classify = classifier([path])
        found = classify(Reply(550, "5.4.1", ("recipient rejected: access denied",)))
        self.assertEqual((found.name, found.action), ("InvalidRecipient", "suppress"))

    def test_doubts_of_ones_own(self) -> None:
        path = self.write("doubts = ['(?i)on a friday']\n")
        found = classifier([path])(Reply(550, "5.1.1", ("no such user on a Friday",)))
        self.assertEqual(found.action, "none")

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
            ("[classes.A]\nacton = 'none'", "[classes] A: acton: unknown key"),
            ("doubt = ['later']", "doubt: unknown key; there are doubts"),
            ("[rules]\ndoubts = ['later']", "doubts: stands in front of the tables"),
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
