"""Claims of a file (configs/e3/claims.ini says how one is written) beside what runs measured.

A claim holds when it does for every run of its configuration, each against the run of the same seed it is
compared with, or the first such run where no seed is shared. It is "not measurable" only with the reason: what a
run lacks."""
import ast
import configparser
import math
import string
import sys

from runs import NAN, ReportError

ALLOWED = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Call, ast.Attribute,
           ast.Name, ast.Constant, ast.Tuple, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context)
WRONG = (ValueError, SyntaxError, AttributeError, TypeError, OverflowError)  # what an expression may raise
if sys.version_info < (3, 8):
    ALLOWED += (ast.Num, ast.Str)


def evaluate(text, names):
    """The value of an expression of arithmetic, comparisons, and public attributes and methods of runs."""
    tree = ast.parse(text.strip(), mode="eval")
    for node in ast.walk(tree):
        private = isinstance(node, ast.Attribute) and node.attr.startswith("_")
        if not isinstance(node, ALLOWED) or private or isinstance(node, ast.Name) and node.id not in names:
            raise ValueError("'%s' may not hold '%s'" % (text, getattr(node, "id", type(node).__name__)))
    try:
        return eval(compile(tree, text, "eval"), {"__builtins__": {}}, names)
    except ZeroDivisionError:
        return NAN


def fill(template, names):
    """The template with each {expression:format} replaced by its value."""
    text = ""
    for literal, expression, form, _ in string.Formatter().parse(template):
        text += literal
        if expression:
            value = evaluate(expression, names)
            number = isinstance(value, (int, float))
            text += format(value, form) if not number or math.isfinite(value) else \
                "–" if math.isnan(value) else "never"
    return text


def format_value(unit, value):
    if math.isinf(value):
        return "never reached"
    percent, sign = abs(100 * value), (value > 0) - (value < 0)
    texts = {"saved": "%s%.1f %%" % (("", "−", "+")[sign], percent),
             "excess": "%s%.2f %%" % (("", "+", "−")[sign], percent),
             "share": "%.2f %%" % (100 * value), "ratio": "× %.3f" % value,
             "bytes": "%.2f B/parameter" % value, "gigabytes": "%.2f GB" % value}
    if unit not in texts:
        raise ValueError("unit '%s'; expected %s" % (unit, ", ".join(texts)))
    return texts[unit]


class Verdict:
    def __init__(self, topic, role, claimed):
        self.topic, self.role, self.claimed = topic, role, claimed
        self.verdict, self.value, self.measured, self.details = "not measurable", NAN, "–", ""


class Claims:
    def __init__(self, path):
        parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), empty_lines_in_values=False)
        parser.optionxform = str
        try:
            with open(path, encoding="utf-8") as file:
                parser.read_file(file)
            self.systems, self.configurations = dict(parser["systems"]), dict(parser["configurations"])
            self.rules = " ".join(parser["report"]["rules"].split())
        except (OSError, UnicodeError, configparser.Error, KeyError) as error:
            raise ReportError(2, "%s: cannot be read as claims: %s" % (path, " ".join(str(error).split())))
        self.path = path
        if not self.configurations:
            raise ReportError(2, "%s: [configurations] is empty; its first is the baseline" % path)
        self.baseline = next(iter(self.configurations))
        self.claims = [parser[name] for name in parser.sections()
                       if name not in ("systems", "configurations", "report")]

    def assign_roles(self, runs):
        """Which configuration each run is: by the systems that are on, else by the directory's name."""
        for run in runs:
            on = {name for name in self.systems if self._is_on(name, run)}
            by_config = next((role for role, systems in self.configurations.items()
                              if set(systems.split()) == on and run.config is not None), "")
            base = run.path.split("/")[-1]
            named = next((role for role in self.configurations
                          if base == role or base.startswith(role + "_seed")), "")
            run.role = by_config or named
            if named and not by_config:
                run.notes.append("taken for `%s` by its name: %s" % (
                    named, "no configuration tells its systems" if run.config is None
                    else "its systems are not those of that configuration"))
            elif named and named != by_config:
                run.notes.append("named after `%s`, but its systems are those of `%s`" % (named, by_config))

    def _is_on(self, system, run):
        try:
            return evaluate(self.systems[system], {"run": run})
        except WRONG as error:
            raise ReportError(2, "%s: [systems] %s: %s" % (self.path, system, error))

    def apply_to(self, runs):
        """Whether the runs hold the baseline and at least one other configuration."""
        roles = {run.role for run in runs if run.role}
        return self.baseline in roles and len(roles) > 1

    @staticmethod
    def _unusable(claim, run, base):
        """Why this pair of runs cannot be used; None when it can."""
        pair = [(run, "its run")] + ([(base, "the run to compare with")] if base else [])
        if "base" in claim and not base:
            return "there is no run to compare with"
        for who, what in pair:
            if not who.steps and not who.planned:
                return what + " left no metrics"
        for who, what in pair:
            if claim.getboolean("finished", fallback=False) and not who.finished:
                return what + " did not finish"
        theirs = base.last("tokens") if base else NAN
        if claim.getboolean("equal_tokens", fallback=False) and abs(run.last("tokens") - theirs) > 0.01 * theirs:
            return "it and the run to compare with trained on different numbers of tokens"
        return None

    @staticmethod
    def _of_size(claim, runs):
        """The runs that a claim is about: those of the size it names and, where these do not tell, trained small ones."""
        low, high = (float(limit) * 1e9 for limit in claim.get("billions", "0 0").split())
        return [run for run in runs if low <= run.parameters <= high], [run for run in runs if not run.large()]

    def _values(self, claim, chosen, runs):
        """A value of each run that tells one, the names in the first's expressions, and why others tell none."""
        values, first, reasons = [], None, []
        for run in chosen:
            base = peer(runs, run, claim["base"]) if "base" in claim else None
            why, names = self._unusable(claim, run, base), {"run": run, "base": base, "nan": NAN}
            value = NAN if why or "measure" not in claim else evaluate(claim["measure"], names)
            if math.isnan(value):
                reasons.append(why or claim["lacking"])
                continue
            first = first or names
            values.append(value)
        return values, first, reasons

    def _judge(self, claim, role, bound, claimed, runs):
        verdict = Verdict(claim.name, role, claimed)
        for chosen in self._of_size(claim, [run for run in runs if run.role == role]):
            values, first, reasons = self._values(claim, chosen, runs)
            if values:
                break
        if not values:
            verdict.details = reasons[-1] if reasons else "no run of `%s` among these" % role
            return verdict
        verdict.value = sum(values) / len(values)
        verdict.measured = format_value(claim["unit"], verdict.value)
        holds = min(values) >= bound[1] if bound[0] == ">=" else max(values) <= bound[1]
        verdict.verdict = "pass" if holds else "**fail**"
        verdict.details = fill(claim["details"], first)
        if len(values) > 1:
            verdict.measured += ", mean of %d (%s … %s)" % (
                len(values), format_value(claim["unit"], min(values)), format_value(claim["unit"], max(values)))
            verdict.details += " (`%s`)" % first["run"].name
        if reasons:
            verdict.details += "; %d left out: %s" % (len(reasons), reasons[-1])
        return verdict

    def judge(self, runs):
        verdicts = []
        for claim in self.claims:
            try:
                for key in (key for key in claim if key.startswith("of ")):
                    bound, claimed = claim[key].split("|", 1)
                    relation, limit = bound.split()
                    if relation not in (">=", "<="):
                        raise ValueError("'%s' compares nothing; expected >= or <=" % relation)
                    for role in key.split()[1:]:
                        if role not in self.configurations:
                            raise ValueError("'%s' is none of [configurations]" % role)
                        verdicts.append(self._judge(claim, role, (relation, float(limit)), claimed.strip(), runs))
            except KeyError as error:
                raise ReportError(2, "%s: claim [%s]: %s is missing" % (self.path, claim.name, error.args[0]))
            except WRONG as error:
                raise ReportError(2, "%s: claim [%s]: %s" % (self.path, claim.name, error))
        return verdicts


def peer(runs, run, role):
    """The run of `role` that `run` is compared with; None when there is none."""
    others = [other for other in runs if other.role == role and other.large() == run.large()
              and (not run.large() or other.shape() == run.shape())]
    return next((other for other in others if other.seed == run.seed), others[0] if others else None)
