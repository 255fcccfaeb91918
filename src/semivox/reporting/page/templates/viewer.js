"use strict";
(() => {
  const section = document.getElementById("viewer");
  const data = JSON.parse(document.getElementById("viewer-data").textContent);
  const canvas = document.getElementById("canvas"), choice = document.getElementById("case");
  const status = document.getElementById("viewer-status"), boxes = [...section.querySelectorAll("[data-layer]")];
  let nv = null, order = [];

  const say = (text) => { status.textContent = text; status.hidden = !text; };

  function setLayers() {
    if (!order.length) return;  // still loading
    for (const box of boxes) {
      const index = order.indexOf(box.dataset.layer);
      box.closest("label").hidden = index < 0;
      if (index > 0) nv.setOpacity(index, box.checked ? Number(box.dataset.opacity) : 0);
    }
  }

  async function show() {
    const found = data.cases[choice.value];
    const layers = ["image", "doubt", "found", "truth"].filter((name) => found[name]);
    const volumes = [];
    for (const name of layers) {
      const grey = name === "image", heat = name === "doubt";
      const volume = await niivue.NVImage.loadFromBase64({
        base64: found[name], name: name + ".nii.gz", colormap: heat ? "inferno" : "gray", opacity: grey ? 1 : 0,
        cal_min: heat ? 20 : 0, cal_max: 255 });
      if (!grey && !heat) volume.setColormapLabel(name === "truth" ? data.white : data.colors);
      volumes.push(volume);
    }
    if (found !== data.cases[choice.value]) return show();  // another case has been chosen meanwhile
    while (nv.volumes.length) nv.removeVolume(nv.volumes[nv.volumes.length - 1]);
    for (const volume of volumes) nv.addVolume(volume);
    order = layers;
    setLayers();
    nv.scene.crosshairPos = nv.mm2frac(found.focus);
    nv.updateGLVolume();
    section.dataset.shown = found.name;
  }

  async function start() {
    try {
      if (!document.createElement("canvas").getContext("webgl2")) throw new Error("no WebGL 2");
      nv = new niivue.Niivue({ backColor: [0.078, 0.086, 0.102, 1], isResizeCanvas: true, logLevel: "error",
        dragAndDropEnabled: false, loadingText: "", crosshairColor: [1, 0.9, 0.5, 0.6], crosshairWidth: 0.35, crosshairWidthUnit: "percent", sagittalNoseLeft: true, fontColor: [1, 0.91, 0.66, 1],
        isRadiologicalConvention: true, multiplanarForceRender: true, show3Dcrosshair: true });
      await nv.attachToCanvas(canvas);
      nv.setSliceType(nv.sliceTypeMultiplanar);
      await show();
      say("");
    } catch (error) {
      say("The viewer cannot start here (" + error.message + "). The pictures above need no viewer.");
    }
  }

  choice.addEventListener("change", () => { if (order.length) show(); });
  for (const box of boxes) box.addEventListener("change", setLayers);
  new IntersectionObserver((entries, watcher) => {
    if (entries.some((entry) => entry.isIntersecting)) { watcher.disconnect(); start(); }
  }, { rootMargin: "300px" }).observe(section);
})();
