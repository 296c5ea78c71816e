from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("payments", "0003_transfer_trail"),
    ]

    operations = [
        migrations.AddField(
            model_name="payment",
            name="closed_at",
            field=models.DateTimeField(blank=True, null=True, verbose_name="closed"),
        ),
        migrations.AddField(
            model_name="payment",
            name="payer_name",
            field=models.CharField(blank=True, default="", max_length=200, verbose_name="payer"),
        ),
        migrations.AddIndex(
            model_name="payment",
            index=models.Index(
                condition=models.Q(("closed_at", None)),
                fields=["amount", "currency"],
                name="payment_open_by_amount",
            ),
        ),
    ]
