"""Line charts and stacked bars as SVG. Lines differ in dashes and marks, bars in lightness, so that both can
be read in grey."""
import math
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 520, 70, 230, 20, 60  # WIDTH and HEIGHT at least
LETTER = 7  # width of most letters
COLOURS = ("#000000", "#c03028", "#1f5fa8", "#2e8540", "#8a4fa0", "#b8760b", "#4a4a4a", "#17858c")
DASHES = ("", "7 3", "2 3", "10 3 2 3", "14 4", "5 2 1 2 1 2")
SHADES = ("#1b2a41", "#c9d6df", "#52779c", "#f2a65a", "#7d4e57", "#e8e3d3", "#3e8e7e", "#a3b18a", "#b5838d", "#6d6875")


def ticks(low, high):
    """Round values from `low` to `high`, five to ten of them."""
    rough = (high - low) / 6
    step = 10 ** math.floor(math.log10(rough))
    step *= next(m for m in (1, 2, 5, 10) if rough <= m * step)
    return [step * i for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


class Chart:
    def __init__(self, x_label, y_label, x_range, y_range):
        self.x_range, self.y_range, self.parts = x_range, y_range, []
        self.legends, self.labels = 0, []
        self.width, self.height = WIDTH, HEIGHT
        self.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x_label, "middle")
        self.parts.append('<text transform="translate(16 %d) rotate(-90)" text-anchor="middle">%s</text>'
                          % ((TOP + HEIGHT - BOTTOM) / 2, escape(y_label)))
        for y in ticks(*y_range):
            self.line(LEFT, self.y(y), WIDTH - RIGHT, self.y(y), "#dddddd")
            self.text(LEFT - 6, self.y(y) + 4, "%.6g" % y, "end")

    def x(self, value):
        low, high = self.x_range
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value):
        low, high = self.y_range
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def text(self, x, y, text, anchor="start"):
        self.parts.append('<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>' % (x, y, anchor, escape(text)))

    def line(self, x1, y1, x2, y2, color, style=""):
        self.parts.append('<path d="M%.1f %.1fL%.1f %.1f" stroke="%s"%s/>' % (x1, y1, x2, y2, color, style))

    def box(self, x, y, width, height, color):
        self.parts.append('<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s" stroke="#000000" '
                          'stroke-width="0.5"/>' % (x, y, width, height, color))

    def legend(self, name):
        """Where the sample of the next name of the legend stands, at its left and middle."""
        x, y = WIDTH - RIGHT + 14, TOP + 8 + 18 * self.legends
        self.legends += 1
        self.text(x + 40, y + 4, name)
        self.reach(x + 40 + LETTER * len(name), y + 12)
        return x, y

    def reach(self, x, y):
        """Makes the picture large enough for a text that ends there."""
        self.width, self.height = max(self.width, x), max(self.height, y)

    def label(self, x, y, name):
        """Beside a mark: to the left of one near the right edge, below labels that stand there already."""
        left = x + 8 + LETTER * len(name) > WIDTH - RIGHT
        while any(abs(x - other_x) < 90 and abs(y - other_y) < 13 for other_x, other_y in self.labels):
            y += 13
        self.labels.append((x, y))
        self.text(x - 8 if left else x + 8, y + 4, name, "end" if left else "start")

    def svg(self):
        frame = '<rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="#000000"/>' % (
            LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM)
        head = ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" '
                'font-size="12">\n<rect width="100%%" height="100%%" fill="#ffffff"/>\n' % (self.width, self.height))
        return head + "\n".join(self.parts + [frame, "</svg>\n"])


def mark(number, x, y):
    """A circle, a square, a diamond, a triangle, a cross or a triangle upside down."""
    path = ("M-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0", "M-3-3h6v6h-6z", "M0-4l4 4l-4 4l-4-4z",
            "M0-4l4 7h-8z", "M-4-1h3v-3h2v3h3v2h-3v3h-2v-3h-3z", "M0 4l4-7h-8z")[number % 6]
    return '<path transform="translate(%.1f %.1f)" d="%s" fill="%s"/>' % (x, y, path, COLOURS[number % len(COLOURS)])


def spread(values):
    low, high = min(values), max(values)
    pad = 0.04 * (high - low) or abs(low) * 0.1 or 1.0
    return low - pad, high + pad


def lines(x_label, y_label, curves, marks):
    """`curves`: (name, [(x, y), ...]) of every run, those without points left out."""
    points = [point for _, curve in curves for point in curve]
    x_range = (0, max([x for x, _ in points] + [0]) * 1.02 or 1)
    chart = Chart(x_label, y_label, x_range, spread([y for _, y in points] or [0, 1]))
    for x in ticks(*x_range):
        chart.line(chart.x(x), HEIGHT - BOTTOM, chart.x(x), TOP, "#eeeeee")
        chart.text(chart.x(x), HEIGHT - BOTTOM + 18, "%.6g" % x, "middle")
    if not points:
        chart.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT / 2, "no run has such points", "middle")
    for i, (name, curve) in enumerate(curves):
        if not curve:
            continue
        style = ' stroke-width="1.5" fill="none" stroke-dasharray="%s"' % DASHES[i % len(DASHES)]
        color, places = COLOURS[i % len(COLOURS)], [(chart.x(x), chart.y(y)) for x, y in curve]
        chart.parts.append('<path d="M%s" stroke="%s"%s/>' % (
            "L".join("%.1f %.1f" % place for place in places), color, style))
        x, y = chart.legend(name)
        chart.line(x, y, x + 34, y, color, style)
        if marks:
            chart.parts += [mark(i, *place) for place in places + [(x + 17, y)]]
    return chart.svg()


def points(x_label, y_label, named):
    """`named`: (name, x, [y, ...]) of every mark, which stands at the mean of its values, on a line over their
    range; equal names share a shape, and those without a value are left out."""
    named = [entry for entry in named if entry[2] and math.isfinite(entry[1])]
    x_range = (0, max([x for _, x, _ in named] + [0]) * 1.08 or 1)
    chart = Chart(x_label, y_label, x_range, spread([y for _, _, ys in named for y in ys] or [0, 1]))
    for x in ticks(*x_range):
        chart.line(chart.x(x), HEIGHT - BOTTOM, chart.x(x), TOP, "#eeeeee")
        chart.text(chart.x(x), HEIGHT - BOTTOM + 18, "%.6g" % x, "middle")
    if not named:
        chart.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT / 2, "no run has such points", "middle")
    taken = []
    for i, name in enumerate(dict.fromkeys(name for name, _, _ in named)):
        places = []
        for ys, at in [(ys, chart.x(x)) for other, x, ys in named if other == name]:
            while any(abs(at - other) < 5 for other in taken):  # ranges side by side
                at += 5
            taken.append(at)
            places.append((at, chart.y(sum(ys) / len(ys))))
            chart.line(at, chart.y(min(ys)), at, chart.y(max(ys)), COLOURS[i % len(COLOURS)])
        x, y = chart.legend(name)
        chart.parts += [mark(i, *place) for place in places + [(x + 17, y)]]
        if len(name) < 12:  # beside its first mark too, where grey tells two marks apart badly
            chart.label(*places[0], name)
    return chart.svg()


def bars(y_label, names, stacks):
    """`stacks`: {category: [a value of every name]}, from the bottom up."""
    sums = [sum(values) for values in zip(*stacks.values())]
    chart = Chart("", y_label, (0, len(names)), (0, max(sums + [0]) * 1.05 or 1))
    if not any(sums):
        chart.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT / 2, "no run tells its memory", "middle")
    heights = [0.0] * len(names)
    for i, (category, values) in enumerate(stacks.items()):
        shade = SHADES[i % len(SHADES)]
        for j, value in enumerate(values):
            top, bottom = chart.y(heights[j] + value), chart.y(heights[j])
            chart.box(chart.x(j + 0.15), top, chart.x(0.7) - LEFT, bottom - top, shade)
            heights[j] += value
        x, y = chart.legend(category)
        chart.box(x, y - 7, 34, 14, shade)
    turned = len(names) > 5 or max(map(len, names), default=0) * LETTER * len(names) > WIDTH - LEFT - RIGHT
    for j, name in enumerate(names):
        if turned:
            chart.reach(chart.x(j + 0.5) + LETTER * len(name), HEIGHT - BOTTOM + 16 + 0.4 * LETTER * len(name))
        chart.parts.append('<text transform="translate(%.1f %d) rotate(%d)" text-anchor="%s">%s</text>' % (
            chart.x(j + 0.5), HEIGHT - BOTTOM + 16, *((18, "start") if turned else (0, "middle")),
            escape(name)))
    return chart.svg()
