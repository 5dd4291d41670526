"""A drawn face that the face detector finds."""

from PIL import Image, ImageDraw, ImageFilter


def draw_face(
    skin: tuple[int, int, int], centre: tuple[int, int], radius: float, picture: Image.Image | None = None
) -> Image.Image:
    """Draw a face of this skin colour on `picture`, by default a wall of 640x480 pixels."""
    picture = picture or Image.new("RGB", (640, 480), (110, 130, 140))
    draw = ImageDraw.Draw(picture)
    red, green, blue = skin
    dark = (red // 3, green // 3, blue // 3)

    def ellipse(x: float, y: float, half_width: float, half_height: float, colour: tuple[int, int, int]) -> None:
        x, y = centre[0] + x * radius, centre[1] + y * radius
        half_width, half_height = half_width * radius, half_height * radius
        draw.ellipse((x - half_width, y - half_height, x + half_width, y + half_height), fill=colour)

    ellipse(0, -0.25, 0.88, 1.05, dark)
    ellipse(0, 0, 0.75, 1.0, skin)
    for side in (-1, 1):
        ellipse(0.32 * side, -0.15, 0.17, 0.09, (245, 240, 235))
        ellipse(0.32 * side, -0.15, 0.08, 0.09, dark)
        ellipse(0.32 * side, -0.34, 0.18, 0.03, dark)
    ellipse(0, 0.24, 0.1, 0.04, (2 * red // 3, 2 * green // 3, 2 * blue // 3))
    ellipse(0, 0.55, 0.28, 0.08, (red // 2 + 40, green // 2, blue // 2))
    return picture.filter(ImageFilter.GaussianBlur(radius / 60))
