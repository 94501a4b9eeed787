import { RawImage } from '@huggingface/transformers';

/** LLaVA's padding: the image in the middle of a square of the mean colour (`image_mean` of preprocessor_config.json). */
export function padToSquare(image, mean) {
  const side = Math.max(image.width, image.height);
  const left = Math.floor((side - image.width) / 2);
  const top = Math.floor((side - image.height) / 2);
  const data = new Uint8ClampedArray(side * side * 3);
  for (let i = 0; i < data.length; ++i) data[i] = Math.trunc(mean[i % 3] * 255);
  for (let row = 0; row < image.height; ++row) {
    const start = row * image.width * 3;
    data.set(image.data.subarray(start, start + image.width * 3), ((row + top) * side + left) * 3);
  }
  return new RawImage(data, side, side, 3);
}
