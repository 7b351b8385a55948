"""The surface of a particle in three dimensions, coloured by strain or phase: one HTML page that opens offline."""

import base64
import json
from collections.abc import Sequence
from html import escape
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import binary_dilation, distance_transform_edt, map_coordinates

from cathodeflow.bcdi.plots import CYCLIC, DIVERGING
from cathodeflow.errors import InputError

# Fraction of the vertices whose values lie within the ends of a colour scale.
_SHOWN = 0.98


class Mesh(NamedTuple):
    """Triangles of a surface.

    vertices : (m, 3) float64
        Places along z, y, x [voxel], index 0 being the centre of the first voxel.
    faces : (k, 3) int64
        Vertices of each, counter-clockwise where x, y, z are right-handed and one looks from outside.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]


def isosurface(amplitude: NDArray[np.floating], level: float) -> Mesh:
    """Find the surface on which the amplitude has a level, closed also where the volume ends.

    A vertex in each cell of eight voxels that lie on both sides, at the mean of the crossings of the cell's edges, and
    a quadrangle, cut into two triangles, for each pair of neighbouring voxels on different sides [1]_.

    Parameters
    ----------
    amplitude : (z, y, x)
    level : float
        In units of the amplitude.

    Raises
    ------
    InputError
        No voxel is above the level.

    References
    ----------
    .. [1] S. F. F. Gibson, Constrained elastic surface nets, MICCAI 1998, LNCS 1496, 888
    """
    height = np.pad(np.asarray(amplitude, np.float64) - level, 1, constant_values=-abs(level) or -1.0)
    inside = height > 0
    if not inside.any():
        raise InputError("amplitude", f"{np.max(amplitude, initial=0):g} at most", f"voxels above the level {level:g}")
    cells = tuple(n - 1 for n in height.shape)
    total, count = np.zeros((*cells, 3)), np.zeros(cells)
    for axis in range(3):
        start, end = _pairs(height, axis)
        crossed = _pairs(inside, axis)[0] != _pairs(inside, axis)[1]
        share = np.where(crossed, start / np.where(crossed, start - end, 1), 0)
        # Each cell has four edges along the axis, at the corners of its face.
        for corner in product((0, 1), repeat=2):
            corners = np.insert(corner, axis, 0)
            part = tuple(slice(low, low + n) for low, n in zip(corners, cells, strict=True))
            count += crossed[part]
            total += crossed[part][..., None] * corners
            total[..., axis] += share[part]
    active = count > 0
    number = np.cumsum(active.ravel()).reshape(cells) - 1
    # Less one, for the padding.
    vertices = np.argwhere(active) + total[active] / count[active][:, None] - 1.0
    faces = []
    for axis in range(3):
        first, second = (other for other in range(3) if other != axis)
        start, end = _pairs(inside, axis)
        places = np.argwhere(start != end)
        rising = end[tuple(places.T)]
        steps = np.zeros((4, 3), np.int64)
        steps[1:3, first] = steps[2:4, second] = -1
        around = np.stack([number[tuple((places + step).T)] for step in steps], axis=1)
        # The other two axes of y stand the other way round than those of z and x.
        turned = rising == (axis == 1)
        around[turned] = around[turned][:, ::-1]
        faces += [around[:, [0, 1, 2]], around[:, [0, 2, 3]]]
    return Mesh(vertices, np.concatenate(faces))


def at_vertices(mesh: Mesh, values: NDArray[np.floating], *, cyclic: bool = False) -> NDArray[np.float64]:
    """Interpolate a quantity (z, y, x) at vertices: (m,); voxels that are NaN take the value of the nearest known one.

    Parameters
    ----------
    mesh : Mesh
    values : (z, y, x)
    cyclic : bool
        Whether they are angles [rad].

    Raises
    ------
    InputError
        No value is known.
    """
    known = np.isfinite(values)
    if not known.any():
        raise InputError("values", "NaN in all voxels", "known values")
    nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
    filled = np.asarray(values, np.float64)[tuple(nearest)]
    places = mesh.vertices.T
    if not cyclic:
        return map_coordinates(filled, places, order=1, mode="nearest")
    parts = [map_coordinates(part, places, order=1, mode="nearest") for part in (np.sin(filled), np.cos(filled))]
    return np.arctan2(*parts)


def surface_page(
    volume: NDArray[np.complexfloating],
    support: NDArray[np.bool_],
    fields: Sequence[tuple[str, str, NDArray[np.floating]]] = (),
    *,
    voxel_nm: ArrayLike | None = None,
    level: float,
    title: str = "Particle",
) -> str:
    """Make the page of an object's surface, to turn, to enlarge, and to colour by any of its fields or its phase.

    Parameters
    ----------
    volume : (z, y, x) complex
    support : (z, y, x) bool
        Voxels beyond its neighbours are ignored, and so is the phase of these neighbours.
    fields : sequence of (name, unit, values)
        Such as the strain, on the same voxels, NaN where not known; the first is shown first. Scales are centred on 0.
    voxel_nm : (3,), optional
        Size of a voxel along z, y, x, which are orthogonal [nm].
    level : float
        Isosurface level, as a fraction of the maximum amplitude.
    title : str

    Returns
    -------
    str
        HTML, with all that it needs inside; WebGL draws it. About 25 bytes for a vertex.

    Raises
    ------
    InputError
        Nothing is above the level.
    """
    # Including a voxel around the support: without it the surface would have the steps of the support.
    amplitude = np.where(binary_dilation(support), np.abs(volume), 0)
    mesh = isosurface(amplitude / (amplitude.max() or 1), level)
    size = np.ones(3) if voxel_nm is None else np.asarray(voxel_nm, np.float64)
    # From here on x, y, z.
    places = ((mesh.vertices - (mesh.vertices.min(0) + mesh.vertices.max(0)) / 2) * size)[:, ::-1]
    radius = float(np.linalg.norm(places, axis=1).max())
    quantities = [
        _coloured(f"{name} [{unit}]" if unit != "1" else name, at_vertices(mesh, values), cyclic=False)
        for name, unit, values in fields
        if np.isfinite(values).any()
    ]
    phase = np.where(support, np.angle(volume), np.nan)
    quantities.append(_coloured("phase [rad]", at_vertices(mesh, phase, cyclic=True), cyclic=True))
    scene = {
        "radius": radius,
        "unit": "voxels" if voxel_nm is None else "nm",
        "places": _base64(np.round(places / radius * 32767), "<i2"),
        "faces": _base64(mesh.faces, "<u4"),
        "quantities": quantities,
    }
    # A title may hold what ends a script.
    text = json.dumps(scene, sort_keys=True).replace("<", "\\u003c")
    return _PAGE.replace("$TITLE", escape(title)).replace("$SCENE", text)


def _pairs(values: NDArray[Any], axis: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Voxels, and their next ones along an axis."""
    n = values.shape[axis]
    return values.take(range(n - 1), axis), values.take(range(1, n), axis)


def _coloured(name: str, values: NDArray[np.float64], *, cyclic: bool) -> dict[str, Any]:
    limit = np.pi if cyclic else float(np.quantile(np.abs(values), _SHOWN)) or 1e-12
    colours = np.round(255 * colormaps[CYCLIC if cyclic else DIVERGING](np.linspace(0, 1, 256))[:, :3])
    ends = ["−π", "0", "π"] if cyclic else [f"−{limit:.2g}", "0", f"{limit:.2g}"]
    levels = np.clip(np.round(127.5 + 127.5 * values / limit), 0, 255)
    return {"name": name, "ends": ends, "colours": _base64(colours, "u1"), "levels": _base64(levels, "u1")}


def _base64(values: NDArray[Any], kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=kind).tobytes()).decode("ascii")


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$TITLE</title>
<style>
html, body { margin: 0; height: 100%; overflow: hidden; background: #fff; color: #222;
  font: 14px "DejaVu Sans", Arial, sans-serif; }
canvas { position: absolute; inset: 0; width: 100%; height: 100%; touch-action: none; }
#lines { pointer-events: none; }
#panel { position: absolute; top: 14px; left: 16px; }
#panel h1 { font-size: 16px; margin: 0 0 10px; }
#panel select { font: inherit; padding: 2px 4px; }
#bar { width: 220px; height: 12px; margin: 10px 0 2px; border: 1px solid #888; }
#ends { width: 222px; display: flex; justify-content: space-between; font-size: 12px; }
#hint { position: absolute; bottom: 12px; right: 16px; font-size: 12px; color: #777; }
</style>
</head>
<body>
<canvas id="view" aria-label="Surface of the particle"></canvas>
<canvas id="lines"></canvas>
<div id="panel">
<h1>$TITLE</h1>
<label>Colour: <select id="quantity"></select></label>
<canvas id="bar" width="256" height="1" style="position: static; display: block; width: 220px; height: 12px"></canvas>
<div id="ends"><span></span><span></span><span></span></div>
</div>
<div id="hint">drag to turn, wheel to enlarge, double click to start over</div>
<script>
"use strict";
const scene = $SCENE;
const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0)).buffer;
const places = Float32Array.from(new Int16Array(bytes(scene.places)), value => value / 32767);
const faces = new Uint32Array(bytes(scene.faces));
const $ = name => document.getElementById(name);
const view = $("view"), lines = $("lines"), gl = view.getContext("webgl", {preserveDrawingBuffer: true});
if (gl && gl.getExtension("OES_element_index_uint")) start();
else $("hint").textContent = "This browser has no WebGL to draw with.";

function start() {
  // Normals: means of those of the triangles around, weighted by their areas.
  const normals = new Float32Array(places.length);
  for (let face = 0; face < faces.length; face += 3) {
    const [a, b, c] = [faces[face] * 3, faces[face + 1] * 3, faces[face + 2] * 3];
    const u = [0, 1, 2].map(k => places[b + k] - places[a + k]), v = [0, 1, 2].map(k => places[c + k] - places[a + k]);
    for (const corner of [a, b, c])
      for (let k = 0; k < 3; k++)
        normals[corner + k] += u[(k + 1) % 3] * v[(k + 2) % 3] - u[(k + 2) % 3] * v[(k + 1) % 3];
  }
  const program = gl.createProgram();
  const shader = (kind, text) => {
    const one = gl.createShader(kind);
    gl.shaderSource(one, text);
    gl.compileShader(one);
    gl.attachShader(program, one);
  };
  shader(gl.VERTEX_SHADER, `attribute vec3 place, normal, colour; uniform mat3 turn; uniform vec2 zoom;
    varying vec3 shown, facing;
    void main() {
      vec3 at = turn * place;
      shown = colour;
      facing = turn * normal;
      gl_Position = vec4(at.xy * zoom, -0.5 * at.z, 1.0);
    }`);
  shader(gl.FRAGMENT_SHADER, `precision mediump float; varying vec3 shown, facing;
    void main() {
      vec3 n = normalize(facing);
      float light = 0.5 + 0.35 * max(dot(n, normalize(vec3(-0.4, 0.6, 0.7))), 0.0) + 0.2 * max(n.z, 0.0);
      gl_FragColor = vec4(shown * min(light, 1.05), 1.0);
    }`);
  gl.linkProgram(program);
  gl.useProgram(program);
  const attribute = (name, type, values) => {
    const at = gl.getAttribLocation(program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(at);
    gl.vertexAttribPointer(at, 3, type, type === gl.UNSIGNED_BYTE, 0, 0);
  };
  attribute("place", gl.FLOAT, places);
  attribute("normal", gl.FLOAT, normals);
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, faces, gl.STATIC_DRAW);
  gl.enable(gl.DEPTH_TEST);
  gl.clearColor(1, 1, 1, 1);

  let turn, zoom, pixels;
  // Rows of a rotation about the axes of the screen, times what was turned before.
  const rotate = (right, down) => {
    const [c, s, d, t] = [Math.cos(right), Math.sin(right), Math.cos(down), Math.sin(down)];
    const step = [[c, 0, s], [t * s, d, -t * c], [-d * s, t, d * c]];
    turn = step.map(row => [0, 1, 2].map(k => row[0] * turn[0][k] + row[1] * turn[1][k] + row[2] * turn[2][k]));
  };
  const restart = () => {
    turn = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
    zoom = 0.75;
    rotate(-0.6, 0.45);
  };
  const draw = () => {
    const ratio = window.devicePixelRatio || 1, width = view.clientWidth, height = view.clientHeight;
    for (const one of [view, lines]) [one.width, one.height] = [width * ratio, height * ratio];
    const side = Math.min(width, height);
    pixels = zoom * side / 2;
    gl.viewport(0, 0, view.width, view.height);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    // WebGL wants columns.
    gl.uniformMatrix3fv(gl.getUniformLocation(program, "turn"), false, [0, 1, 2].flatMap(k => turn.map(row => row[k])));
    gl.uniform2f(gl.getUniformLocation(program, "zoom"), zoom * side / width, zoom * side / height);
    gl.drawElements(gl.TRIANGLES, faces.length, gl.UNSIGNED_INT, 0);
    annotate(lines.getContext("2d"), ratio, height);
  };
  const annotate = (pen, ratio, height) => {
    pen.scale(ratio, ratio);
    pen.font = '13px "DejaVu Sans", Arial, sans-serif';
    pen.lineWidth = 2;
    const [x, y] = [60, height - 110];
    ["x", "y", "z"].forEach((name, k) => {
      pen.strokeStyle = pen.fillStyle = ["#D55E00", "#009E73", "#0072B2"][k];
      pen.beginPath();
      pen.moveTo(x, y);
      pen.lineTo(x + 32 * turn[0][k], y - 32 * turn[1][k]);
      pen.stroke();
      pen.fillText(name, x + 42 * turn[0][k] - 4, y - 42 * turn[1][k] + 4);
    });
    // A round length of at most 160 pixels; there is no perspective, so it holds at every depth.
    const most = 160 / pixels * scene.radius, power = 10 ** Math.floor(Math.log10(most));
    const length = [5, 2, 1].map(step => step * power).find(value => value <= most);
    pen.fillStyle = "#222";
    pen.fillRect(20, height - 28, length / scene.radius * pixels, 4);
    pen.fillText(`${Number(length.toPrecision(1))} ${scene.unit}`, 20, height - 36);
  };
  const colour = () => {
    const one = scene.quantities[$("quantity").selectedIndex];
    const map = new Uint8Array(bytes(one.colours)), levels = new Uint8Array(bytes(one.levels));
    const colours = new Uint8Array(3 * levels.length);
    levels.forEach((level, vertex) => colours.set(map.subarray(3 * level, 3 * level + 3), 3 * vertex));
    attribute("colour", gl.UNSIGNED_BYTE, colours);
    const pen = $("bar").getContext("2d"), image = pen.createImageData(256, 1);
    for (let k = 0; k < 256; k++) image.data.set([...map.subarray(3 * k, 3 * k + 3), 255], 4 * k);
    pen.putImageData(image, 0, 0);
    one.ends.forEach((text, k) => { $("ends").children[k].textContent = text; });
    draw();
  };
  scene.quantities.forEach(one => $("quantity").add(new Option(one.name)));
  $("quantity").onchange = colour;
  view.onpointerdown = event => view.setPointerCapture(event.pointerId);
  view.onpointermove = event => {
    if (!event.buttons) return;
    rotate(event.movementX * 0.01, event.movementY * 0.01);
    draw();
  };
  view.addEventListener("wheel", event => {
    event.preventDefault();
    zoom = Math.min(Math.max(zoom * Math.exp(-event.deltaY * 0.001), 0.2), 20);
    draw();
  }, {passive: false});
  view.ondblclick = () => { restart(); draw(); };
  window.onresize = draw;
  restart();
  colour();
}
</script>
</body>
</html>
"""
