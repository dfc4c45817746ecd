"""The registered model: training loss, restoration, precision, accumulation, EMA."""

import pytest
import torch

from basicsr_ext.common.errors import InputError, NonFiniteLoss
from basicsr_ext.models.restoration_model import ema_decay_at
from i2sb_plugin.bridge import Bridge
from i2sb_plugin.models.i2sb_model import I2SBModel
from tests.support.models import built, generators, make_batch, model_options, predicting


def model(**changes):
    return built("I2SBModel", **{"bridge__steps": 100, "val__sampler__nfe": 3} | changes)


def batch(channels=3):
    return make_batch(4, (8, 10), channels)


def step(net, iteration=1, data=None):
    torch.manual_seed(5)
    net.feed_data(data or batch())
    net.optimize_parameters(iteration)
    return [p.detach().clone() for p in net.net_g.parameters()]


def test_the_loss_of_an_untrained_network_is_the_mean_square_of_the_target():
    net = model()
    net.feed_data(batch())
    torch.manual_seed(5)
    loss = float(net.training_loss(net.batch)["l_bridge"].detach())
    torch.manual_seed(5)
    bridge, x0, x1 = Bridge.one_clock(100, 0.3), net.batch["gt"] * 2 - 1, net.start(net.batch)[0]
    steps = bridge.sample_step(4)
    xt = bridge.sample_xt(x0, x1, steps)
    assert loss == pytest.approx(float(bridge.target(xt, x0, steps).square().mean()), rel=1e-6)


@pytest.mark.parametrize("own", [{}, {"generators": generators(*range(4))}])
def test_all_training_samples_can_be_put_to_x1(own):
    net = model(bridge__x1_share=1.0)
    net.feed_data(batch())
    x1 = net.start(net.batch)[0]
    seen = []
    net.net_g.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[:2]))
    net.training_loss({**net.batch, **own})
    assert torch.allclose(seen[0], x1, atol=1e-6) and seen[1].tolist() == [1000.0] * 4


def test_a_share_that_is_none_is_refused():
    with pytest.raises(InputError, match=r"bridge: x1_share is 1\.5.*0 to 1"):
        model(bridge__x1_share=1.5)


def test_an_untrained_network_restores_the_lifted_image_in_one_step():
    net = model(val__sampler__nfe=1)
    net.feed_data(batch())
    net.test()
    lifted = ((net.start(net.batch)[0] + 1) / 2).clamp(0, 1)
    assert torch.allclose(net.output, lifted, atol=1e-6)


def test_training_lowers_the_loss():
    net = model()
    losses = []
    for k in range(1, 31):
        step(net, k)
        losses.append(net.get_current_log()["l_bridge"])
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("holes", [False, True], ids=["", "holes"])
def test_the_parts_of_a_batch_add_up_to_the_whole(holes):
    data = masked_batch() if holes else batch()
    if holes:
        data["mask"][0, :, :8] = 0  # smaller than the others
    own = {"scale": 1, "train__bridge_opt": {"type": "BridgeLoss", "per_hole": True}} if holes else {}

    def gradients(parts, iteration=1):
        net = model(train__accumulate=parts, **own)
        net.feed_data(data)
        net.optimize_parameters(iteration)
        return torch.cat([p.grad.flatten() for p in net.net_g.parameters()])

    whole = gradients(1)
    for parts in (2, 3, 4):
        assert torch.allclose(gradients(parts), whole, atol=1e-5 * float(whole.abs().max()))
    assert not torch.allclose(gradients(1, iteration=2), whole, atol=1e-2 * float(whole.abs().max()))


def test_the_average_follows_its_formula():
    net = model(train__ema_warmup=True)
    before = [p.clone() for p in net.net_g_ema.parameters()]
    after = step(net, 1)
    decay = 2 / 11
    for average, start, now in zip(net.net_g_ema.parameters(), before, after):
        assert torch.allclose(average, decay * start + (1 - decay) * now, atol=1e-7)


@pytest.mark.parametrize(("update", "decay"), [(1, 2 / 11), (2, 3 / 12), (890, 891 / 900), (5000, 0.99)])
def test_the_warm_up_of_the_average(update, decay):
    assert ema_decay_at(update, 0.99, warmup=True) == pytest.approx(min(decay, 0.99))
    assert ema_decay_at(update, 0.99, warmup=False) == 0.99


def test_clipping_bounds_the_gradient_and_the_log_tells_its_norm():
    net = model(train__grad_clip=1e-3)
    step(net)
    norm = torch.cat([p.grad.flatten() for p in net.net_g.parameters()]).norm()
    assert float(norm) == pytest.approx(1e-3, rel=1e-2)
    log = net.get_current_log()
    assert log["grad_norm"] > 1e-3 and log["lr"] == 1e-3


def test_the_log_holds_means_since_the_last_one():
    net = model(train__optim_g__lr=1e-12)
    single = []
    for k in (1, 2):
        step(net, k)
        single.append(net.get_current_log()["l_bridge"])
    for k in (1, 2):
        step(net, k)
    assert net.get_current_log()["l_bridge"] == pytest.approx(sum(single) / 2, rel=1e-5)


def test_a_bad_loss_stops_the_run_before_the_weights_change():
    net = model()
    good = step(net)
    data = batch()
    data["gt"][0, 0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteLoss, match=r"iteration 7, learning rate 1\.000e-03"):
        step(net, 7, data)
    assert all(torch.equal(a, b) for a, b in zip(good, net.net_g.parameters()))
    with pytest.raises(NonFiniteLoss):
        net.save(0, 8)


def test_an_image_is_restored_alike_alone_and_in_a_batch():
    net = model()
    step(net)
    data = batch()
    net.feed_data(data)

    with torch.no_grad():
        whole = net.restore(net.batch, net.eval_net, generators(*range(4)))
        net.feed_data({k: v[2:3] for k, v in data.items()})
        alone = net.restore(net.batch, net.eval_net, generators(2))
    assert torch.allclose(whole[2:3], alone, atol=1e-5)
    assert not torch.allclose(whole[1:2], alone, atol=1e-2)


@pytest.mark.parametrize("channels", [1, 4])
def test_any_number_of_channels_trains_and_restores(channels):
    net = model(network_g__in_channels=channels, network_g__out_channels=channels)
    step(net, data=batch(channels=channels))
    net.test()
    assert net.output.shape == (4, channels, 16, 20)
    assert float(net.output.min()) >= 0 and float(net.output.max()) <= 1


def test_the_network_may_see_x1_beside_xt():
    net = model(bridge__cond_x1=True, network_g__cond_channels=3)
    step(net)
    net.test()
    assert net.output.shape == (4, 3, 16, 20)


def test_the_strip_shows_x1_the_walk_and_the_original():
    net = model()
    net.feed_data(batch())
    strip = net.progress_strip({k: v[:1] for k, v in net.batch.items()}, net.eval_net)
    assert strip.shape == (3, 16, 20 * 5), "x1, three steps, ground truth"
    assert torch.allclose(strip[:, :, -20:], net.batch["gt"][0])


def test_sizes_that_do_not_fit_are_told():
    net = model()
    data = batch()
    data["gt"] = data["gt"][:, :, :-1]
    with pytest.raises(InputError, match=r"gt is \(3, 15, 20\).*\(3, 16, 20\)"):
        step(net, data=data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val__sampler__nfe": 101}, "val.sampler.nfe is 101; this bridge allows 1 to 100"),
        ({"val__sampler__type": "ancestal"}, "type is 'ancestal'; did you mean ancestral"),
        ({"bridge__steps": 0}, "bridge.steps is 0"),
        ({"bridge__lift": "cubic"}, "bridge.lift is 'cubic'"),
    ],
)
def test_options_out_of_range_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        net = model(**change)
        net.feed_data(batch())
        net.test()


def masked_batch():
    data = {k: v[..., :16] if torch.is_tensor(v) else v for k, v in batch().items()}
    data["lq"] = data["gt"].clone()
    data["mask"] = torch.zeros(4, 1, 16, 16)
    data["mask"][:, :, 4:12, 4:12] = 1
    return data


def test_the_hole_of_a_mask_starts_as_noise_and_the_rest_stays():
    net = model(scale=1)
    data = masked_batch()
    net.feed_data(data)
    x1, cond = net.start(net.batch, generators(*range(4)))
    inside = x1[:, :, 4:12, 4:12]
    assert cond is None and abs(float(inside.std()) - 1) < 0.1 and abs(float(inside.mean())) < 0.1
    known = 1 - data["mask"]
    assert torch.allclose(x1 * known, (data["lq"] * 2 - 1) * known)
    assert torch.equal(model(scale=1, bridge__hole="keep").start(data)[0], data["lq"] * 2 - 1)
    net.test()
    assert torch.allclose(net.output * known, data["gt"] * known, atol=1e-6), "what is known is given back"


def test_the_loss_of_an_inpainting_task_looks_at_the_hole_alone():
    data = masked_batch()
    losses = {}
    for per_hole in (False, True):
        net = model(scale=1, train__bridge_opt={"type": "BridgeLoss", "per_hole": per_hole})
        net.feed_data(data)
        torch.manual_seed(5)
        losses[per_hole] = float(net.training_loss(net.batch)["l_bridge"].detach())
    assert losses[True] == pytest.approx(4 * losses[False], rel=1e-5), "the hole is a quarter of the image"


def test_noise_on_x1_is_added_after_the_condition_was_taken():
    net = model(bridge__add_x1_noise=True, bridge__cond_x1=True, network_g__cond_channels=3)
    net.feed_data(batch())
    x1, cond = net.start(net.batch)
    assert abs(float((x1 - cond).std()) - 1) < 0.1
    assert torch.equal(cond, model().start(net.batch)[0])


def test_condition_images_follow_x1():
    net = model(bridge__cond_x1=True, network_g__cond_channels=5)
    data = batch() | {"cond": torch.rand(4, 2, 16, 20)}
    net.feed_data(data)
    _, cond = net.start(net.batch)
    assert cond.shape == (4, 5, 16, 20) and torch.allclose(cond[:, 3:], data["cond"] * 2 - 1)
    step(net, data=data)


@pytest.mark.parametrize("channels", [1, 4])
def test_x1_and_x0_may_differ_in_channels(channels):
    net = model(bridge__cond_x1=True, network_g__cond_channels=channels)
    data = batch()
    data["lq"] = torch.rand(4, channels, 8, 10)
    step(net, data=data)
    net.test()
    assert net.output.shape == (4, 3, 16, 20)


def test_a_network_that_predicts_x0_starts_at_grey_and_learns():
    net = model(bridge__predicts="x0", val__sampler__nfe=1)
    net.feed_data(batch())
    net.test()
    assert torch.allclose(net.output, torch.full_like(net.output, 0.5))
    losses = []
    for k in range(1, 21):
        step(net, k)
        losses.append(net.get_current_log()["l_bridge"])
    assert losses[-1] < 0.8 * losses[0]


def test_draws_are_averaged_and_their_spread_is_kept():
    single = model()
    step(single)
    single.feed_data(batch())
    own = generators(*range(4))
    with torch.no_grad():
        walks = torch.stack([single.restore(single.batch, single.eval_net, own) for _ in range(5)])
    many = model(val__sampler__draws=5)
    step(many)
    many.feed_data(batch())
    many.test()
    assert torch.allclose(many.output, walks.mean(0), atol=1e-5)
    assert torch.allclose(many.extras["std"], (4 * walks.std(0)).clamp(0, 1), atol=1e-4)


@pytest.mark.parametrize(
    "sampler", [{"type": "dbim", "order": 2, "first": 0.99}, {"type": "one_step"}, {"type": "ot_ode"}]
)
def test_every_sampler_serves_one_set_of_weights(sampler):
    net = model(val__sampler=sampler | {"nfe": 4})
    step(net)
    net.test()
    assert net.output.shape == (4, 3, 16, 20) and bool(torch.isfinite(net.output).all())


def test_consistency_makes_the_result_agree_with_its_input():
    block = {"type": "sr4x_pool", "scale": 2}
    data = batch()
    data["lq"] = torch.nn.functional.avg_pool2d(data["gt"], 2)
    away = []
    for consistency in (None, {"degradation": block}):
        net = model(val__sampler={"nfe": 3, "clip": False, "consistency": consistency})
        step(net, data=data)
        net.feed_data(data)
        net.test()
        away.append(float((torch.nn.functional.avg_pool2d(net.output, 2) - data["lq"]).abs().mean()))
    assert away[1] < 0.1 * away[0]


def test_options_of_another_sampler_are_refused():
    with pytest.raises(ValueError, match="eta .*ancestral.*use dbim"):
        model(val__sampler={"eta": 0.5})


def test_low_frequencies_are_those_of_the_degraded_image():
    lq = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(3))
    results = {}
    for sigma in (None, 2.0, 100.0):
        net = predicting(model(scale=1, val__sampler={"nfe": 3, "low_frequencies": sigma}))
        net.feed_data({"lq": lq * 0.4 + 0.3, "lq_path": ["a"]})
        net.test()
        results[sigma] = net.output.double() - net.lq
    means = {sigma: float(change.mean((2, 3)).abs().max()) for sigma, change in results.items()}
    assert means[2.0] < 1e-6 and means[100.0] < 1e-6 and means[None] > 1e-4
    kept = (results[2.0] - results[2.0].mean()).square().mean() / (results[None] - results[None].mean()).square().mean()
    assert 0.3 < float(kept) <= 1.1, "detail stays"


def test_low_frequencies_of_a_hole_are_refused_before_the_start():
    image = torch.zeros(3, 24, 24)
    item = {"lq": image, "gt": image, "mask": torch.ones(1, 24, 24)}
    opt = model_options("I2SBModel", scale=1, val__sampler={"nfe": 3, "low_frequencies": 2.0}) | {"is_train": False}
    (fault,) = I2SBModel.data_faults(opt, item)
    assert "val.sampler.low_frequencies" in fault and "leave it out" in fault
    assert not I2SBModel.data_faults(opt, {"lq": image, "gt": image})
    net = model(scale=1, val__sampler={"nfe": 3, "low_frequencies": 2.0})
    net.net_g_ema.register_forward_pre_hook(lambda *_: pytest.fail("the network was called"))
    net.feed_data({"lq": image[None], "mask": item["mask"][None], "lq_path": ["a"]})
    with pytest.raises(InputError, match=fault):
        net.test()


@pytest.mark.parametrize("sigma", [0, -1])
def test_low_frequencies_of_no_width_are_refused(sigma):
    with pytest.raises(InputError, match=rf"low_frequencies is {sigma}.*above 0"):
        model(val__sampler={"low_frequencies": sigma})
