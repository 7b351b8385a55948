const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0)).buffer;
const places = Float32Array.from(new Int16Array(bytes(scene.places)), value => value / 32767);
const faces = new Uint32Array(bytes(scene.faces));
const $ = name => document.getElementById(name);
const view = $("view"), lines = $("lines"), gl = view.getContext("webgl", {preserveDrawingBuffer: true});
if (gl && gl.getExtension("OES_element_index_uint")) start();
else $("hint").textContent = "This browser cannot draw in 3D: WebGL is missing or disabled.";

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
    const [first, count] = scene.quantities[$("quantity").selectedIndex].part || [0, faces.length];
    gl.drawElements(gl.TRIANGLES, count, gl.UNSIGNED_INT, 4 * first);
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
  // Phases have a colour each and no scale.
  (scene.legend || []).forEach(([name, shade]) => {
    const line = $("legend").appendChild(document.createElement("li"));
    line.appendChild(document.createElement("span")).style.background = shade;
    line.append(name);
  });
  if (scene.legend) $("bar").style.display = $("ends").style.display = "none";
  $("quantity").onchange = colour;
  // One finger or the mouse turns, two fingers zoom.
  const fingers = new Map(), spread = () => {
    const [one, other] = [...fingers.values()];
    return Math.hypot(one[0] - other[0], one[1] - other[1]) || 1;
  };
  view.onpointerdown = event => {
    view.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
  };
  view.onpointerup = view.onpointercancel = event => fingers.delete(event.pointerId);
  view.onpointermove = event => {
    if (!fingers.has(event.pointerId)) return;
    const [x, y] = fingers.get(event.pointerId), before = fingers.size === 2 && spread();
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (before) zoom = Math.min(Math.max(zoom * spread() / before, 0.2), 20);
    else rotate((event.clientX - x) * 0.01, (event.clientY - y) * 0.01);
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
